"""The studio's colours and fonts as a Gradio theme; what a theme cannot say is in assets/studio.css."""

from __future__ import annotations

import gradio as gr

# Plain names: a font object of Gradio's would be fetched from elsewhere.
_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
_FONT_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def build_theme() -> gr.themes.Base:
    """Calm colours, the system's own fonts, both light and dark."""
    theme = gr.themes.Base(
        primary_hue="indigo", secondary_hue="indigo", neutral_hue="slate", font=_FONT, font_mono=_FONT_MONO
    )
    # Gradio's own greys and its lighter indigo miss the contrast that small text needs (WCAG AA, 4.5 to 1).
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        link_text_color_dark="*primary_300",
        link_text_color_hover_dark="*primary_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_cancel_background_fill="*neutral_100",
        color_accent="*primary_600",
        button_large_text_size="*text_md",
        button_large_text_weight="600",
    )
