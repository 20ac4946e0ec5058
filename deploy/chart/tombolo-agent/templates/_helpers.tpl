{{/* Where everything of the agent is: the controller, the command line and the gateways know no other place. */}}
{{- define "tombolo-agent.namespace" -}}
tombolo-system
{{- end }}

{{/* Labels of an object; its component, where it is of one. */}}
{{- define "tombolo-agent.labels" -}}
app.kubernetes.io/managed-by: tombolo
app.kubernetes.io/name: {{ .name | default "tombolo-agent" }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* All that is missing, at once. */}}
{{- define "tombolo-agent.check" -}}
{{- $missing := list }}
{{- if not .Values.controller.url }}{{ $missing = append $missing "controller.url: how the agent reaches the controller (`tombolo cluster create` prints it)" }}{{ end }}
{{- if not .Values.controller.caFingerprint }}{{ $missing = append $missing "controller.caFingerprint: what the controller's authority is known by (`tombolo cluster create` prints it)" }}{{ end }}
{{- if not .Values.cluster }}{{ $missing = append $missing "cluster: its name, as given to `tombolo cluster create`" }}{{ end }}
{{- if and .Values.createNamespace (not .Values.organization) }}{{ $missing = append $missing "organization: what the namespace is annotated with" }}{{ end }}
{{- if and (not .Values.createNamespace) (ne .Release.Namespace "tombolo-system") }}{{ $missing = append $missing "--namespace tombolo-system: the agent runs in no other (or set createNamespace, and keep the release elsewhere)" }}{{ end }}
{{- if $missing }}{{ fail (printf "\n\nmissing:\n  - %s\n" (join "\n  - " $missing)) }}{{ end }}
{{- end }}
