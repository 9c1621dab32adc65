{{/* A probe's host and port of an address; a host that is any address is left to the pod's own. */}}
{{- define "nodeway.probed" -}}
{{- $host := regexReplaceAll ":[0-9]+$" . "" | trimAll "[]" -}}
{{- if not (has $host (list "0.0.0.0" "::")) }}host: {{ $host | quote }}, {{ end -}}
port: {{ regexFind "[0-9]+$" . }}
{{- end }}
