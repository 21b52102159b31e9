"""HoldOutExampleGen: from a source's files to the four splits."""
