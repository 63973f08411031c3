"""A zoo of tiny models: every architecture that Optimum exports, small enough to build, export and judge in seconds."""
