{{/* Name of everything that belongs to the operator. */}}
{{- define "fraudpipeline.operator" -}}
{{- printf "%s-operator" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* User name of the operator's ServiceAccount, as admission sees it. */}}
{{- define "fraudpipeline.operatorUser" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "fraudpipeline.operator" .) -}}
{{- end }}

{{- define "fraudpipeline.selector" -}}
app.kubernetes.io/name: fraudpipeline
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "fraudpipeline.labels" -}}
{{ include "fraudpipeline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What a JSON schema cannot say, or not in a sentence. Every template of this chart starts here, through the ConfigMap. */}}
{{- define "fraudpipeline.check" -}}
{{- $name := "^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$" -}}
{{- if not .Values.region -}}
{{- fail "region: say which region this cluster is, as in spec.regions of the manifests, such as --set region=us-east" -}}
{{- end -}}
{{- if not (regexMatch $name .Values.region) -}}
{{- fail (printf "region: %q is not allowed: use 1 to 32 lower-case letters, digits and '-', starting and ending with a letter or digit" .Values.region) -}}
{{- end -}}
{{- if not .Values.watchNamespaces -}}
{{- fail "watchNamespaces: name at least one namespace, such as [fraud], or the operator would watch nothing" -}}
{{- end -}}
{{- if has .Release.Namespace .Values.watchNamespaces -}}
{{- fail (printf "watchNamespaces: %s is the operator's own namespace: keep pipelines in another, so that their owners cannot touch the operator" .Release.Namespace) -}}
{{- end -}}
{{- if not .Values.images -}}
{{- fail "images: name the images of at least one data-plane version, such as \"0.1.0\": {decision: ..., inference: ..., builder: ..., replicator: ..., redis: ...}" -}}
{{- end -}}
{{- range $version, $images := .Values.images -}}
{{- if not (regexMatch "^[0-9]+[.][0-9]+[.][0-9]+(-[0-9A-Za-z.-]+)?$" $version) -}}
{{- fail (printf "images: %q is not a version such as \"0.1.0\"; spec.version of a manifest could not name it" $version) -}}
{{- end -}}
{{- end -}}
{{- if .Values.peers -}}
{{- fail "peers: operators do not talk to each other yet (issue 7): leave the list empty" -}}
{{- end -}}
{{- end }}
