"""The variants side by side: trained in the same manner, exported, and measured through their files."""
