"""Files in a lower precision: int8 and float16."""
