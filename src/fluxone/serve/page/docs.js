"use strict";
// The server's own OpenAPI document, for people: nothing is fetched from elsewhere.

const add = (parent, tag, text) => parent.appendChild(Object.assign(document.createElement(tag), { textContent: text || "" }));
const named = (schema) => schema.const ?? (schema.enum ? schema.enum.join(" | ") : schema.anyOf ? schema.anyOf.map(named).join(" | ")
  : schema.$ref ? schema.$ref.split("/").pop() : schema.type || "any");
const bounds = (schema) => [schema, ...(schema.anyOf || [])].flatMap((s) => ["minimum", "maximum", "multipleOf", "maxLength", "pattern"]
  .filter((key) => key in s).map((key) => `${key} ${s[key]}`)).join(", ");

fetch("/openapi.json").then((answer) => answer.json()).then((api) => {
  const root = document.getElementById("docs");
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, told] of Object.entries(methods)) {
      const block = add(root, "details");
      const head = add(block, "summary");
      add(head, "code", `${method.toUpperCase()} ${path}`);
      add(head, "span", ` ${told.summary || ""}`);
      if (told.description) add(block, "p", told.description);
      const ref = told.requestBody?.content?.["application/json"]?.schema?.$ref;
      const schema = ref ? api.components.schemas[ref.split("/").pop()] : null;
      const rows = [...(told.parameters || []).map((p) => [p.name, p.schema, p.required]),
        ...Object.entries(schema?.properties || {}).map(([name, s]) => [name, s, (schema.required || []).includes(name)])];
      if (!rows.length) continue;
      const table = add(block, "table");
      for (const [name, s, needed] of rows) {
        const row = add(table, "tr");
        add(row, "td", name + (needed ? " *" : ""));
        add(row, "td", named(s));
        add(row, "td", bounds(s));
        add(row, "td", s.default == null ? "" : `default ${JSON.stringify(s.default)}`);
      }
    }
  }
});
