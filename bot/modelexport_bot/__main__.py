"""``python -m modelexport_bot``."""

from modelexport_bot.cli import main

if __name__ == "__main__":
    main()
