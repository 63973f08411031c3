"""GitHub: what changes when we run inside one of its workflows."""
