"""The topics: their names, and how they have to look on the broker."""

from processor.names import TopicNames

__all__ = ["TopicNames"]
