"""What every part of the page is made of: HTML, markdown, words, and what is changed in Gradio."""
