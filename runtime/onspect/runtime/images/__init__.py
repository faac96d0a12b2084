"""Images: decoding, preprocessing, image files in folders, and pictures for people."""
