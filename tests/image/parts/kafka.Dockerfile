# One KRaft node, for tests, with the settings that the official image takes.
ARG BASE
FROM ${BASE}
COPY start-kafka /
RUN mkdir -p /var/lib/kafka/data && chown 10001:10001 /var/lib/kafka/data
USER 10001:10001
CMD ["sh", "/start-kafka"]
