"""Images in; memory-mapped arrays and splits out."""
