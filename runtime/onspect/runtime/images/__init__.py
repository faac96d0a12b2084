"""Images: decoding, preprocessing, finding them in folders, and pictures for people."""
