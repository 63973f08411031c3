"""What we do differently from Optimum, one idea a file: each says which release does what wrong, and how one sees
it.
"""
