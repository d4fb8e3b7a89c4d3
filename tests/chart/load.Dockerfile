# The product's image, and the tests beside it.
ARG BASE
FROM ${BASE}
COPY . /source/tests
ENV PYTHONPATH=/source
ENTRYPOINT ["python3", "-m", "tests.chart.load"]
