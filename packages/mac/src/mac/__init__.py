"""What uploaded model code is written against. Needs numpy and nothing else, on Python 3.8 and newer."""
