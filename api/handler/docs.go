package handler

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"strings"

	"gopkg.in/yaml.v3"
)

//go:embed docs.html
var docsPage string

// description is the part of an OpenAPI document that the page shows. References are followed by their last part.
type description struct {
	Info struct {
		Title       string
		Version     string
		Description string
	}
	Paths      ordered[ordered[operation]]
	Components struct {
		Schemas    ordered[property]
		Parameters ordered[parameter]
		Headers    ordered[parameter]
		Responses  ordered[response]
	}
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Summary     string
	Description string
	Parameters  []parameter
	RequestBody *response `yaml:"requestBody"`
	Responses   ordered[response]
}

type parameter struct {
	Ref         string `yaml:"$ref"`
	Name        string
	In          string
	Description string
	Required    bool
	Schema      property
}

type response struct {
	Ref         string `yaml:"$ref"`
	Description string
	Headers     ordered[parameter]
	Content     ordered[struct{ Schema property }]
}

type property struct {
	Ref         string `yaml:"$ref"`
	Type        any
	Format      string
	Description string
	Required    []string
	Properties  ordered[property]
	Items       *property
	MinLength   *int `yaml:"minLength"`
	MaxLength   *int `yaml:"maxLength"`
	Minimum     *int
	Maximum     *int
	Default     any
	Examples    []any
}

// ordered is a YAML mapping in the order of its file.
type ordered[T any] []pair[T]

type pair[T any] struct {
	Key   string
	Value T
}

// UnmarshalYAML keeps the order that a Go map would lose.
func (o *ordered[T]) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: a mapping is expected", node.Line)
	}
	for i := 0; i < len(node.Content); i += 2 {
		entry := pair[T]{Key: node.Content[i].Value}
		if err := node.Content[i+1].Decode(&entry.Value); err != nil {
			return err
		}
		*o = append(*o, entry)
	}
	return nil
}

func (o ordered[T]) find(ref string) (T, error) {
	for _, entry := range o {
		if entry.Key == last(ref) {
			return entry.Value, nil
		}
	}
	var none T
	return none, fmt.Errorf("%s is not defined", ref)
}

// renderDocs makes the page once; it needs nothing from elsewhere and holds no script.
func renderDocs(openAPI []byte) ([]byte, error) {
	var d description
	if err := yaml.Unmarshal(openAPI, &d); err != nil {
		return nil, err
	}
	if d.Info.Title == "" || len(d.Paths) == 0 {
		return nil, errors.New("the description has no title or no paths")
	}
	page, err := template.New("docs").Funcs(template.FuncMap{
		"last": last, "limits": limits, "typeOf": typeOf,
		"paragraphs": func(text string) []string { return strings.Split(strings.TrimSpace(text), "\n\n") },
		"parameter":  func(p parameter) (parameter, error) { return follow(p, p.Ref, d.Components.Parameters) },
		"header":     func(p parameter) (parameter, error) { return follow(p, p.Ref, d.Components.Headers) },
		"response":   func(r response) (response, error) { return follow(r, r.Ref, d.Components.Responses) },
		"isRequired": func(p property, name string) bool {
			return strings.Contains(" "+strings.Join(p.Required, " ")+" ", " "+name+" ")
		},
	}).Parse(docsPage)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := page.Execute(&out, d); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func follow[T any](inline T, ref string, defined ordered[T]) (T, error) {
	if ref == "" {
		return inline, nil
	}
	return defined.find(ref)
}

func last(ref string) string { return ref[strings.LastIndex(ref, "/")+1:] }

func typeOf(p property) string {
	switch {
	case p.Ref != "":
		return last(p.Ref)
	case p.Items != nil:
		return "array of " + typeOf(*p.Items)
	}
	kind := strings.Trim(strings.ReplaceAll(fmt.Sprint(p.Type), " ", " or "), "[]")
	if p.Format != "" {
		kind += " (" + p.Format + ")"
	}
	return kind
}

func limits(p property) string {
	var all []string
	for _, limit := range []struct {
		name  string
		value *int
	}{{"at least %d", p.Minimum}, {"at most %d", p.Maximum}, {"at least %d characters", p.MinLength}, {"at most %d characters", p.MaxLength}} {
		if limit.value != nil {
			all = append(all, fmt.Sprintf(limit.name, *limit.value))
		}
	}
	if p.Default != nil {
		all = append(all, fmt.Sprintf("default %v", p.Default))
	}
	return strings.Join(all, ", ")
}
