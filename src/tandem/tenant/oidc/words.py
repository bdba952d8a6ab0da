"""The texts of the sign-in pages in French; English is in the pages. Refusals stay English, as
their numbers are what people look up."""

import re

LANGUAGES = ("en", "fr")

_FRENCH = {
    "Sign in": "Se connecter",
    "User name": "Nom d'utilisateur",
    "Password": "Mot de passe",
    "to continue to": "pour continuer vers",
    "Choose a new password": "Choisir un nouveau mot de passe",
    "This password has to be changed before you go on:": (
        "Ce mot de passe doit être changé avant de continuer :"
    ),
    "New password": "Nouveau mot de passe",
    "New password, again": "Nouveau mot de passe, encore une fois",
    "Pick an account": "Choisir un compte",
    "Use another account": "Utiliser un autre compte",
    "Permissions requested": "Autorisations demandées",
    "asks to use": "demande à utiliser",
    "on behalf of": "au nom de",
    "Consent on behalf of the organization": "Consentir au nom de l'organisation",
    "Accept": "Accepter",
    "Cancel": "Annuler",
    "Enter code": "Entrer le code",
    "Enter the code displayed on your app or device.": (
        "Entrez le code affiché par votre application ou votre appareil."
    ),
    "Code": "Code",
    "Next": "Suivant",
    "Are you trying to sign in to": "Essayez-vous de vous connecter à",
    "Another device will be signed in as": "Un autre appareil sera connecté en tant que",
    "Only continue if you started this on a device of your own, and typed in its code yourself.": (
        "Ne continuez que si vous l'avez demandé sur un appareil à vous, et saisi son code "
        "vous-même."
    ),
    "Continue": "Continuer",
    "Signed in": "Connecté",
    "Sign-in error": "Erreur de connexion",
    "Sorry, we cannot sign you in": "Désolé, la connexion est impossible",
    "You are signed out": "Vous êtes déconnecté",
    "You have signed in on your device": "Vous êtes connecté sur votre appareil",
    "The device was not signed in": "L'appareil n'a pas été connecté",
    "You may close this window.": "Vous pouvez fermer cette fenêtre.",
}


def translate(text: str, language: str) -> str:
    return _FRENCH.get(text, text) if language == "fr" else text


def language_of(accepted: str) -> str:
    """The first of our languages in an Accept-Language header."""
    for item in accepted.split(",")[:20]:
        found = re.match(r"\s*([a-zA-Z]{2})\b", item)
        if found and found[1].lower() in LANGUAGES and "q=0;" not in item + ";":
            return found[1].lower()
    return "en"
