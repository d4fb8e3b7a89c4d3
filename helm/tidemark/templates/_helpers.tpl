{{- define "tidemark.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tidemark.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tidemark.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tidemark.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: worker
{{- end }}

{{/* Labels of everything but the workers' pods: a selector must never find those. */}}
{{- define "tidemark.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "tidemark.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* metadata of an object: dict "root" "suffix" "component" "labels" "annotations" */}}
{{- define "tidemark.metadata" -}}
name: {{ include "tidemark.fullname" .root }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "tidemark.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component | default "worker" }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tidemark.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "tidemark.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "tidemark.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "tidemark.partitions" -}}
{{ (.Values.settings.partitions | default 32) | int }}
{{- end }}

{{- define "tidemark.tenants" -}}
{{ .Values.settings.tenants | default (list "default") | toJson }}
{{- end }}

{{/* The settings that are no secret, as environment variables. */}}
{{- define "tidemark.settings" -}}
TIDEMARK_HTTP: {{ printf "0.0.0.0:%d" (int .Values.service.port) | quote }}
TIDEMARK_SECRETS_DIR: /etc/tidemark/secrets
TIDEMARK_BROKERS: {{ join "," .Values.kafka.brokers | quote }}
TIDEMARK_KAFKA_SECURITY_PROTOCOL: {{ .Values.kafka.securityProtocol }}
TIDEMARK_REPLICATION_FACTOR: {{ int .Values.topics.replicationFactor | quote }}
{{- if not (hasKey .Values.settings "log_format") }}
TIDEMARK_LOG_FORMAT: json
{{- end }}
{{- with .Values.kafka.sasl.mechanism }}
TIDEMARK_KAFKA_SASL_MECHANISM: {{ . }}
{{- end }}
{{- with .Values.kafka.sasl.username }}
TIDEMARK_KAFKA_SASL_USERNAME: {{ . | quote }}
{{- end }}
{{- with .Values.kafka.oauth.endpoint }}
TIDEMARK_KAFKA_OAUTH_ENDPOINT: {{ . | quote }}
{{- end }}
{{- with .Values.kafka.oauth.clientId }}
TIDEMARK_KAFKA_OAUTH_CLIENT_ID: {{ . | quote }}
{{- end }}
{{- with .Values.kafka.oauth.scope }}
TIDEMARK_KAFKA_OAUTH_SCOPE: {{ . | quote }}
{{- end }}
{{- with .Values.kafka.oauth.extensions }}
TIDEMARK_KAFKA_OAUTH_EXTENSIONS: {{ join "," . | quote }}
{{- end }}
{{- if .Values.kafka.tls.caSecret }}
TIDEMARK_KAFKA_SSL_CAFILE: /etc/tidemark/kafka-ca/ca.crt
{{- end }}
{{- if .Values.kafka.tls.clientSecret }}
TIDEMARK_KAFKA_SSL_CERTFILE: /etc/tidemark/kafka-client/tls.crt
TIDEMARK_KAFKA_SSL_KEYFILE: /etc/tidemark/kafka-client/tls.key
{{- end }}
{{- if not .Values.kafka.tls.checkHostname }}
TIDEMARK_KAFKA_SSL_CHECK_HOSTNAME: "false"
{{- end }}
{{- with .Values.store.url }}
TIDEMARK_STORE: {{ . | quote }}
{{- end }}
{{- with .Values.store.tls.mode }}
PGSSLMODE: {{ . }}
{{- end }}
{{- if .Values.store.tls.caSecret }}
PGSSLROOTCERT: /etc/tidemark/store-ca/ca.crt
{{- end }}
{{- if .Values.store.tls.clientSecret }}
PGSSLCERT: /etc/tidemark/store-client/tls.crt
PGSSLKEY: /etc/tidemark/store-client/tls.key
{{- end }}
{{- range $name, $value := .Values.settings }}
TIDEMARK_{{ upper $name }}: {{ include "tidemark.text" $value | quote }}
{{- end }}
{{- end }}

{{/* A value as an environment variable has it. Helm reads numbers as floats, and JSON writes those plainly. */}}
{{- define "tidemark.text" -}}
{{- if kindIs "slice" . }}{{ join "," . }}{{ else if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{/* The same for hooks, which run before there is a ConfigMap. */}}
{{- define "tidemark.settingsEnv" -}}
{{- range $name, $value := include "tidemark.settings" . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "tidemark.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- if .Values.store.passwordSecret }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.store.passwordSecret }}
      key: {{ .Values.store.passwordKey }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tidemark.workerEnv" -}}
envFrom:
  - configMapRef:
      name: {{ include "tidemark.fullname" . }}
  {{- with .Values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  {{- include "tidemark.env" . | nindent 2 }}
{{- end }}

{{/* What the settings read secrets from: dict "root" "name" "storeSecret" "storeKey" */}}
{{- define "tidemark.secretsVolume" -}}
{{- $values := .root.Values -}}
- name: {{ .name }}
  projected:
    defaultMode: 0440
    sources:
      {{- if .storeSecret }}
      - secret:
          name: {{ .storeSecret }}
          items: [{key: {{ .storeKey | quote }}, path: TIDEMARK_STORE}]
      {{- end }}
      {{- with $values.kafka.sasl }}
      {{- if .existingSecret }}
      - secret:
          name: {{ .existingSecret }}
          items:
            - {key: {{ .passwordKey | quote }}, path: TIDEMARK_KAFKA_SASL_PASSWORD}
            {{- if .usernameKey }}
            - {key: {{ .usernameKey | quote }}, path: TIDEMARK_KAFKA_SASL_USERNAME}
            {{- end }}
      {{- end }}
      {{- end }}
      {{- with $values.kafka.oauth }}
      {{- if .existingSecret }}
      - secret:
          name: {{ .existingSecret }}
          items: [{key: {{ .clientSecretKey | quote }}, path: TIDEMARK_KAFKA_OAUTH_CLIENT_SECRET}]
      {{- end }}
      {{- end }}
      {{- with $values.kafka.tls }}
      {{- if and .clientSecret .keyPasswordKey }}
      - secret:
          name: {{ .clientSecret }}
          items: [{key: {{ .keyPasswordKey | quote }}, path: TIDEMARK_KAFKA_SSL_KEY_PASSWORD}]
      {{- end }}
      {{- end }}
      {{- /* A projected volume has at least one source. */}}
      - downwardAPI:
          items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end }}

{{/* Volumes: dict "root" "storeSecret" "storeKey" */}}
{{- define "tidemark.volumes" -}}
{{- $values := .root.Values -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{ include "tidemark.secretsVolume" (merge (dict "name" "secrets") .) }}
{{- range $name, $tls := dict "kafka" $values.kafka.tls "store" $values.store.tls }}
{{- if $tls.caSecret }}
- name: {{ $name }}-ca
  secret:
    secretName: {{ $tls.caSecret }}
    defaultMode: 0440
    items: [{key: {{ $tls.caKey | quote }}, path: ca.crt}]
{{- end }}
{{- if $tls.clientSecret }}
- name: {{ $name }}-client
  secret:
    secretName: {{ $tls.clientSecret }}
    defaultMode: 0440
    items: [{key: {{ $tls.certKey | quote }}, path: tls.crt}, {key: {{ $tls.keyKey | quote }}, path: tls.key}]
{{- end }}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* dict "root" "secrets" */}}
{{- define "tidemark.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: {{ .secrets }}, mountPath: /etc/tidemark/secrets, readOnly: true}
{{- range $name, $tls := dict "kafka" .root.Values.kafka.tls "store" .root.Values.store.tls }}
{{- if $tls.caSecret }}
- {name: {{ $name }}-ca, mountPath: /etc/tidemark/{{ $name }}-ca, readOnly: true}
{{- end }}
{{- if $tls.clientSecret }}
- {name: {{ $name }}-client, mountPath: /etc/tidemark/{{ $name }}-client, readOnly: true}
{{- end }}
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What all pods have in common. */}}
{{- define "tidemark.podSpec" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* dict "root" and, where it is not `secrets`, the volume "secrets" */}}
{{- define "tidemark.container" -}}
image: {{ include "tidemark.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
volumeMounts:
  {{- include "tidemark.volumeMounts" (dict "root" .root "secrets" (.secrets | default "secrets")) | nindent 2 }}
{{- end }}

{{/* A hook's job: dict "root" "name" "hook" "weight" "args" "storeSecret" "storeKey" "resources" */}}
{{- define "tidemark.hookJob" -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- $hook := dict "helm.sh/hook" .hook "helm.sh/hook-weight" .weight "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" }}
  {{- include "tidemark.metadata" (dict "root" .root "suffix" .name "component" .name "annotations" $hook) | nindent 2 }}
spec:
  backoffLimit: 3
  activeDeadlineSeconds: 600
  template:
    metadata:
      labels:
        {{- include "tidemark.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .name }}
    spec:
      restartPolicy: Never
      {{- include "tidemark.podSpec" .root | nindent 6 }}
      containers:
        - name: {{ .name }}
          args: {{ toJson .args }}
          {{- include "tidemark.container" (dict "root" .root) | nindent 10 }}
          env:
            {{- include "tidemark.settingsEnv" .root | nindent 12 }}
            {{- include "tidemark.env" .root | nindent 12 }}
            {{- if .ownStore }}
            # An empty variable counts as not set: the secret's URL is used.
            - {name: TIDEMARK_STORE, value: ""}
            {{- end }}
          {{- with .root.Values.extraEnvFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
      volumes:
        {{- include "tidemark.volumes" . | nindent 8 }}
{{- end }}

{{/* What the schema can't say. */}}
{{- define "tidemark.checks" -}}
{{- $values := .Values }}
{{- if and (not $values.store.existingSecret) (not $values.store.url) }}
{{- fail "store: set store.existingSecret (a secret with the PostgreSQL URL), or store.url" }}
{{- end }}
{{- if and $values.store.existingSecret $values.store.url }}
{{- fail "store: store.existingSecret and store.url exclude each other" }}
{{- end }}
{{- if regexMatch "^[a-z]+://[^/@]*:[^/@]*@" $values.store.url }}
{{- fail "store.url must not hold a password: put the URL into a secret and name it in store.existingSecret" }}
{{- end }}
{{- if and (hasPrefix "SASL" $values.kafka.securityProtocol) (not $values.kafka.sasl.mechanism) }}
{{- fail (printf "kafka.sasl.mechanism is needed with kafka.securityProtocol %s" $values.kafka.securityProtocol) }}
{{- end }}
{{- if and $values.kafka.sasl.mechanism (not (hasPrefix "SASL" $values.kafka.securityProtocol)) }}
{{- fail (printf "kafka.sasl.mechanism is %s, but kafka.securityProtocol %s has no login" $values.kafka.sasl.mechanism $values.kafka.securityProtocol) }}
{{- end }}
{{- if and (or $values.kafka.tls.caSecret $values.kafka.tls.clientSecret) (not (hasSuffix "SSL" $values.kafka.securityProtocol)) }}
{{- fail (printf "kafka.tls is set, but kafka.securityProtocol %s is not encrypted" $values.kafka.securityProtocol) }}
{{- end }}
{{- if and (eq $values.topics.mode "strimzi") (not $values.topics.strimzi.cluster) }}
{{- fail "topics.strimzi.cluster is needed with topics.mode strimzi" }}
{{- end }}
{{- if and $values.workload.staticMembership (ne $values.workload.kind "StatefulSet") }}
{{- fail "workload.staticMembership needs workload.kind StatefulSet: a Deployment's pods have no names that last" }}
{{- end }}
{{- $partitions := include "tidemark.partitions" . | int }}
{{- if and (ne $values.autoscaling.kind "none") (gt (int $values.autoscaling.maxReplicas) $partitions) }}
{{- fail (printf "autoscaling.maxReplicas is %d, but there are %d partitions (settings.partitions): more workers would stand by idle" (int $values.autoscaling.maxReplicas) $partitions) }}
{{- end }}
{{- if gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" }}
{{- end }}
{{- if and $values.metrics.podMonitor.enabled $values.metrics.serviceMonitor.enabled }}
{{- fail "metrics.podMonitor and metrics.serviceMonitor exclude each other: every sample would come twice" }}
{{- end }}
{{- end }}

{{/* Name of a topic: dict "root" "tenant" "kind" */}}
{{- define "tidemark.topic" -}}
{{- $prefix := "tidemark." }}
{{- if hasKey .root.Values.settings "topic_prefix" }}{{ $prefix = .root.Values.settings.topic_prefix }}{{ end }}
{{- $prefix }}{{ if ne .tenant "default" }}{{ .tenant }}.{{ end }}{{ .kind }}
{{- end }}

{{- define "tidemark.commandsTopic" -}}
{{ include "tidemark.topic" (merge (dict "kind" "commands") .) }}
{{- end }}

{{/* Settings of the topics, as `tidemark topics create` gives them; a test compares the two. */}}
{{- define "tidemark.topicConfigs" -}}
{{- $settings := .Values.settings }}
{{- $commandBytes := max 1048588 (add (int64 ($settings.max_record_bytes | default 1000000)) 65536) }}
{{- $eventBytes := add $commandBytes (mul 40 (int64 ($settings.max_events | default 1000))) (mul 16 (int64 ($settings.max_name_bytes | default 255))) 65536 }}
{{- $all := dict "cleanup.policy" "delete" "compression.type" "producer" }}
{{- if ge (int .Values.topics.replicationFactor) 3 }}{{ $_ := set $all "min.insync.replicas" "2" }}{{ end }}
{{- $written := merge (dict "max.message.bytes" (toString $eventBytes)) $all }}
{{- $forEver := "9223372036854775807" }}
{{- $kept := dict "retention.ms" "-1" "retention.bytes" "-1" "message.timestamp.type" "CreateTime" "message.timestamp.before.max.ms" $forEver "segment.ms" $forEver }}
commands:
  {{- merge (dict "max.message.bytes" (toString $commandBytes) "message.timestamp.after.max.ms" "3600000") $kept $all | toYaml | nindent 2 }}
results:
  {{- merge (dict "retention.ms" "604800000") $written | toYaml | nindent 2 }}
conflicts:
  {{- merge (dict "retention.ms" "604800000") $written | toYaml | nindent 2 }}
events:
  {{- merge (dict "message.timestamp.after.max.ms" $forEver) $kept $written | toYaml | nindent 2 }}
dead-letters:
  {{- merge (dict "retention.ms" "2592000000") $written | toYaml | nindent 2 }}
{{- end }}
