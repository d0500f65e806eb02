"""placeholder"""

made = None
