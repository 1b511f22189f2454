"""``python -m stepscope.viewer`` is ``stepscope``."""

from stepscope.viewer.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
