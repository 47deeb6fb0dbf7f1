"""What a finished run is shown as: Markdown, HTML, pictures, model cards. It evaluates nothing."""
