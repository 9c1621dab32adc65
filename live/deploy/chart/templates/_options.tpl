{{/* Options of a command line in brackets: a number or a text behind its name, `true` as the name alone. */}}
{{- define "nodeway.options" -}}
{{- range $name, $value := . -}}
{{- if kindIs "bool" $value }}{{ if $value }}, --{{ $name }}{{ end }}
{{- else if kindIs "float64" $value }}, --{{ $name }}, "{{ int64 $value }}"
{{- else }}, --{{ $name }}, {{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end }}
