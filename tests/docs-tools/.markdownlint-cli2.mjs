// Lints all Markdown of the repository. Links to other files and to headings must lead somewhere.
import relativeLinks from "markdownlint-rule-relative-links"

export default {
  config: {
    default: true,
    MD013: { line_length: 120 },
    // Tables are written as `| a | b |` with `|---|---|` below the head.
    MD060: false,
    "relative-links": true,
  },
  globs: ["**/*.md"],
  gitignore: true,
  // Generated from the doc comments in src/config, and from a part of a page; its tables have one row for each key.
  ignores: ["docs/configuration.md", "src/config/schema/chapters.md"],
  customRules: [relativeLinks],
  noBanner: true,
  noProgress: true,
}
