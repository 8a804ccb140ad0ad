"""What the commands print: one module for each screen, and the parts that screens share."""
