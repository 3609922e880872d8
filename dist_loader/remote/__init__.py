"""Files that are not on this machine: listed, fetched and, if wanted, kept here. See docs/remote.md."""
