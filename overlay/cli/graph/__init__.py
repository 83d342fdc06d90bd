"""Pictures of a cluster: as text, Mermaid, Graphviz or SVG."""
