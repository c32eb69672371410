# coview with every plugin: docker build -t coview . && docker run --rm coview list
FROM python:3.12-slim
COPY constraints.txt /coview/constraints.txt
COPY core /coview/core
COPY plugins /coview/plugins
RUN cd /coview && pip install --no-cache-dir -c constraints.txt ./core ./plugins/*/
WORKDIR /work
ENTRYPOINT ["coview"]
