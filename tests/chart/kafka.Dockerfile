# Apache Kafka as one KRaft node, from its jars (the build's context) and Debian's Java, for tests.
ARG BASE
FROM ${BASE}
RUN mkdir -p /usr/share/man/man1 && apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends default-jre-headless \
    && rm -rf /var/lib/apt/lists/*
COPY . /opt/kafka
USER 10001:10001
WORKDIR /data
