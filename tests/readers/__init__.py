"""The libraries beside Optimum that read what we publish; ``make readers`` installs and asks them."""
