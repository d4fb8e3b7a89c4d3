"""What the worker says of itself: counts, durations, hot streams (`meter`), traces (`tracing`), and their way out.

The meter is plain Python and is told of a cycle or a log's share of it at a time; OpenTelemetry reads it when somebody
asks (`export`), so that a command costs next to nothing.
"""
