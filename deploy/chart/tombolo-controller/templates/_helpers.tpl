{{/* The name of everything: the release's, with the chart's where that is not in it. */}}
{{- define "tombolo-controller.name" -}}
{{- $name := .Release.Name }}
{{- if not (contains "tombolo-controller" $name) }}{{ $name = printf "%s-tombolo-controller" $name }}{{ end }}
{{- $name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tombolo-controller.selector" -}}
app.kubernetes.io/name: tombolo-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tombolo-controller.labels" -}}
{{ include "tombolo-controller.selector" . }}
app.kubernetes.io/component: controller
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* How it is reached. */}}
{{- define "tombolo-controller.url" -}}
{{- .Values.publicUrl | default (printf "https://%s.%s.svc:%v" (include "tombolo-controller.name" .) .Release.Namespace .Values.service.port) }}
{{- end }}

{{/* Names of the Service, for a certificate of its own authority. */}}
{{- define "tombolo-controller.names" -}}
{{- $name := include "tombolo-controller.name" . }}
{{- $service := printf "%s.%s.svc" $name .Release.Namespace }}
{{- concat (list $service $name (printf "%s.%s" $name .Release.Namespace)) .Values.tls.names | uniq | toJson }}
{{- end }}

{{/* The claim of the private database; empty with a database of one's own. */}}
{{- define "tombolo-controller.claim" -}}
{{- if not .Values.database.existingSecret }}{{ .Values.persistence.existingClaim | default (include "tombolo-controller.name" .) }}{{ end }}
{{- end }}

{{/* All that does not go together, at once. */}}
{{- define "tombolo-controller.check" -}}
{{- $wrong := list }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.database.existingSecret) }}{{ $wrong = append $wrong (printf "replicas: %d replicas share a database, so they need one of yours: database.existingSecret" (int .Values.replicas)) }}{{ end }}
{{- if and .Values.database.existingSecret (not .Values.caKey.existingSecret) }}{{ $wrong = append $wrong "caKey.existingSecret: with a database of your own, every replica needs the same key file, so it can't be made on a volume" }}{{ end }}
{{- if and .Values.database.existingSecret (not .Values.ownerToken.existingSecret) }}{{ $wrong = append $wrong "ownerToken.existingSecret: with a database of your own there is no volume, and a token made up in a pod is lost with it" }}{{ end }}
{{- if and .Values.database.existingSecret .Values.persistence.existingClaim }}{{ $wrong = append $wrong "persistence.existingClaim: nothing is kept on a volume with database.existingSecret" }}{{ end }}
{{- if and .Values.tls.existingSecret .Values.tls.names }}{{ $wrong = append $wrong "tls.names: they are in your own certificate, or not (tls.existingSecret)" }}{{ end }}
{{- if ne .Values.service.type "LoadBalancer" }}
{{- if .Values.service.loadBalancerClass }}{{ $wrong = append $wrong "service.loadBalancerClass: for service.type LoadBalancer only" }}{{ end }}
{{- if .Values.service.loadBalancerSourceRanges }}{{ $wrong = append $wrong "service.loadBalancerSourceRanges: for service.type LoadBalancer only" }}{{ end }}
{{- end }}
{{- if eq .Values.service.type "ClusterIP" }}
{{- if .Values.service.nodePort }}{{ $wrong = append $wrong "service.nodePort: a ClusterIP has none" }}{{ end }}
{{- if ne .Values.service.externalTrafficPolicy "Cluster" }}{{ $wrong = append $wrong "service.externalTrafficPolicy: nothing comes from outside to a ClusterIP" }}{{ end }}
{{- end }}
{{- if and (or .Values.networkPolicy.from .Values.networkPolicy.adminFrom) (not .Values.networkPolicy.enabled) }}{{ $wrong = append $wrong "networkPolicy.enabled: without it, networkPolicy.from and adminFrom do nothing" }}{{ end }}
{{- if $wrong }}{{ fail (printf "\n\nthese values can't be used:\n  - %s\n" (join "\n  - " $wrong)) }}{{ end }}
{{- end }}
