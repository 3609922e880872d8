"""The command line: `dist-loader`. Arguments only; what is done with them is elsewhere."""
