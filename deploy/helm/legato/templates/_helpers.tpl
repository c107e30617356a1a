{{- define "legato.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "legato.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "legato.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "legato.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of the pods of one part, and of nothing else; never changes. Takes (list ROOT PART). */}}
{{- define "legato.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "legato.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "legato.labels" -}}
{{- $root := index . 0 -}}
{{ include "legato.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "legato.image" -}}
{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
{{- end -}}

{{/* The settings of a part that are files, over those of both. Takes (list ROOT PART); gives JSON. */}}
{{- define "legato.secrets" -}}
{{- $root := index . 0 -}}
{{- mergeOverwrite (deepCopy $root.Values.secrets) (index $root.Values (index . 1)).secrets | toJson -}}
{{- end -}}

{{/* Stops with one line if a part lacks what it cannot do without. Takes (list ROOT PART SETTING OTHER-NAME). */}}
{{- define "legato.require" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $set := dict -}}
{{- range $each := list $root.Values.secrets $root.Values.env (index $root.Values $part).secrets (index $root.Values $part).env -}}
{{- $set = merge $set $each -}}
{{- end -}}
{{- if not (or $root.Values.config (hasKey $set (index . 2)) (hasKey $set (index . 3))) -}}
{{- fail (printf "the %s needs %s: name a secret with it in secrets, or in %s.secrets" $part (index . 2) $part) -}}
{{- end -}}
{{- end -}}

{{/* Variables of a part: the files of its secrets, then plain ones. Takes (list ROOT PART DICT-OF-OWN). */}}
{{- define "legato.env" -}}
{{- $root := index . 0 -}}
{{- $part := index $root.Values (index . 1) -}}
{{- range $name, $_ := include "legato.secrets" . | fromJson }}
- name: {{ $name }}_FILE
  value: /run/secrets/legato/{{ $name }}
{{- end }}
{{- range $name, $value := mergeOverwrite (deepCopy $root.Values.env) $part.env (index . 2) }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{/* Takes (list ROOT PART). */}}
{{- define "legato.volumes" -}}
{{- $root := index . 0 -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: data
  emptyDir: {sizeLimit: 64Mi}
{{- with include "legato.secrets" . | fromJson }}
- name: secrets
  projected:
    # Of the group, which is fsGroup.
    defaultMode: 0440
    sources:
      {{- range $name, $from := . }}
      - secret:
          name: {{ $from.secret }}
          items: [{key: {{ $from.key | quote }}, path: {{ $name }}}]
      {{- end }}
{{- end }}
{{- if $root.Values.config }}
- name: config
  configMap: {name: {{ include "legato.fullname" $root }}}
{{- end }}
{{- end -}}

{{- define "legato.volumeMounts" -}}
{{- $root := index . 0 -}}
- {name: tmp, mountPath: /tmp}
# The working directory, which the image declares as a volume.
- {name: data, mountPath: /data}
{{- if include "legato.secrets" . | fromJson }}
- {name: secrets, mountPath: /run/secrets/legato, readOnly: true}
{{- end }}
{{- if $root.Values.config }}
- {name: config, mountPath: /etc/legato, readOnly: true}
{{- end }}
{{- end -}}

{{- define "legato.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What all pods have. Takes ROOT. */}}
{{- define "legato.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where pods run. Takes (list ROOT PART). */}}
{{- define "legato.placement" -}}
{{- $part := index (index . 0).Values (index . 1) -}}
# Otherwise Legato would be process 1, which does not get SIGTERM in the half second in which Python starts.
shareProcessNamespace: true
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "legato.selector" . | nindent 8 }}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Takes (list ROOT PART). A changed file starts new pods; changed secrets do not, since they are not known here. */}}
{{- define "legato.podMetadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "legato.labels" . | nindent 2 }}
{{- $annotations := deepCopy (index $root.Values (index . 1)).podAnnotations }}
{{- if $root.Values.config }}
{{- $_ := set $annotations "checksum/config" (sha256sum $root.Values.config) }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
