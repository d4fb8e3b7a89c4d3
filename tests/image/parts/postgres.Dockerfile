# PostgreSQL from Debian's packages, for tests, with the settings that the official image takes.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/lib/postgresql/*/bin /usr/lib/postgresql/bin \
    && useradd --uid 10001 --no-create-home server
ENV PATH=/usr/lib/postgresql/bin:$PATH LANG=C
COPY start-postgres /
RUN mkdir -p /var/lib/postgresql/data && chown 10001:10001 /var/lib/postgresql/data
USER 10001:10001
CMD ["sh", "/start-postgres"]
