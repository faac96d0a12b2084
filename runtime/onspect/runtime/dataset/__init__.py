"""Folders of labelled images: their layout, labels, masks and near-duplicates."""
