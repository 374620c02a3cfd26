"""Where labelled images come from: folders, zips, downloads, drawn samples."""
