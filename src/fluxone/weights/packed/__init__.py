"""Numbers that are packed in files: how they are recognised in headers, unpacked, and packed for writing."""
