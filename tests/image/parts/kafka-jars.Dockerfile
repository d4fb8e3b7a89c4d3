# Apache Kafka from its jars (the build's context) and Debian's Java.
ARG BASE
FROM ${BASE}
RUN mkdir -p /usr/share/man/man1 && apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends default-jre-headless \
    && rm -rf /var/lib/apt/lists/*
COPY . /opt/kafka
