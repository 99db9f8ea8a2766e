"""What a page looks like and says: contrast of its text, what sticks out of it, what has no name, its messages."""

import io

import numpy as np
from PIL import Image

MIN_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3
PAINTED = """selector => [...document.querySelectorAll(selector)].filter(e => e.getClientRects().length).map(e => {
  let ground = e;
  while (ground && getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  return [getComputedStyle(e).color, ground ? getComputedStyle(ground).backgroundColor : "rgb(255, 255, 255)"];
})"""
WITHOUT_NAME = """() => {
  const named = e => e.alt || e.getAttribute("aria-label") || e.closest("[aria-hidden=true]");
  const images = [...document.querySelectorAll("img, svg, .player, button, input")].filter(e => !named(e));
  const figures = [...document.querySelectorAll("figure")].filter(
    e => !e.querySelector("figcaption")?.textContent.trim() || !e.querySelector("img[alt], svg[aria-label]"));
  return [...images, ...figures].map(e => e.outerHTML.slice(0, 200));
}"""
OUTSIDE = """() => [...document.querySelectorAll("body *")].filter(e =>
  e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".wide") && !e.closest(".unseen")
).map(e => e.outerHTML.slice(0, 200))"""


def rgb(colour: str) -> np.ndarray:
    inside = colour.partition("(")[2].rstrip(")").split(",")
    assert len(inside) == 3, f"{colour} is not opaque"
    return np.array([float(part) for part in inside])


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    share = rgb(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(text: str, ground: str) -> float:
    darker, lighter = sorted([luminance(text), luminance(ground)])
    return (lighter + 0.05) / (darker + 0.05)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def listened(browser):
    """A new page, what it will say on the console, and the addresses it will ask for."""
    page = browser.new_page()
    said, requested = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    return page, said, requested
