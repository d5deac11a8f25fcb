"""What is in a file that mgrl wrote, whether it is whole, and whether it looks sane.

Reads, never writes, and works on a run that is going on. Everything is returned as records of plain
numbers and as sections of text; how they are drawn is the command's business.
"""
