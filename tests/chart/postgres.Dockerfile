# PostgreSQL from Debian's packages, for tests.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home server
ENV PATH=/usr/lib/postgresql/15/bin:$PATH LANG=C
USER 10001:10001
WORKDIR /data
