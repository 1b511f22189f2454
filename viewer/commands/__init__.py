"""The commands of ``stepscope``, one a file: ``add`` declares one, and what it sets as ``run`` carries it out."""
