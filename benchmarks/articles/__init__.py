"""The timings of the articles that this project replaces, measured again beside ours."""
