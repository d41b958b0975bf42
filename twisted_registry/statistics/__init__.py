"""What a store contains, and what a running registry does, in numbers."""
