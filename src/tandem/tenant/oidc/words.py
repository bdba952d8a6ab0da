"""The texts of the sign-in pages in French; English is in the pages. A refusal keeps its number,
which is what people look up; logs and answers to programs stay English."""

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


# What a person may meet on a page, by the number of the refusal.
_REFUSALS = {
    16000: "Cette page de connexion n'est plus valable, ou elle vient d'un autre navigateur. "
    "Revenez à l'application et recommencez ; les cookies doivent être autorisés.",
    50011: "L'adresse de redirection demandée n'est pas inscrite pour cette application. "
    "Prévenez la personne qui gère l'application.",
    50034: "Ce compte n'existe pas dans cette organisation.",
    50053: "La connexion est bloquée après trop de mots de passe ou de codes incorrects. Attendez "
    "quelques minutes, puis réessayez.",
    50055: "Le mot de passe a expiré. Demandez-en un autre à un administrateur.",
    50057: "Le compte est désactivé. Adressez-vous à un administrateur.",
    50058: "Personne n'est connecté dans ce navigateur.",
    50076: "Un second facteur est demandé, que cette connexion n'a pas.",
    50126: "Le nom d'utilisateur ou le mot de passe est incorrect. Vérifiez les deux et réessayez.",
    53000: "L'appareil n'est pas conforme aux règles de l'organisation.",
    53003: "Une règle d'accès de l'organisation bloque cette connexion.",
    65001: "Personne n'a consenti à ce que demande l'application.",
    65004: "Le consentement a été refusé.",
    70003: "L'application a demandé d'une façon qui n'est pas prise en charge.",
    70008: "Le code ou le jeton a expiré. Recommencez.",
    70011: "L'application demande une autorisation qui n'existe pas.",
    70018: "Ce code est incorrect. Vérifiez-le sur l'appareil et saisissez-le à nouveau.",
    70019: "Ce code a expiré. Demandez-en un autre sur l'appareil.",
    70020: "La connexion de l'appareil a été refusée.",
    90002: "Cette organisation n'existe pas ici.",
    90023: "La demande de l'application n'est pas valable.",
    90033: "Le service de connexion ne répond pas pour l'instant. Réessayez dans un moment.",
    90094: "L'application demande des autorisations que seul un administrateur peut accorder. "
    "Demandez à un administrateur général de consentir.",
    90100: "La demande est incomplète ou n'est pas valable.",
    500011: "L'application demande une ressource qui n'est pas dans cette organisation.",
    700016: "Cette application n'est pas inscrite dans cette organisation.",
    700054: "L'application ne peut pas obtenir ce qu'elle demande de cette façon.",
    900144: "Il manque un paramètre à la demande de l'application.",
    7000112: "Cette application est désactivée.",
}
_OTHERS = (
    (
        "does not comply with password complexity",
        "Le mot de passe n'est pas assez complexe. Prenez au moins 8 caractères, de trois sortes "
        "parmi minuscule, majuscule, chiffre et symbole.",
    ),
    ("The two passwords differ", "Les deux mots de passe diffèrent. Saisissez deux fois le même."),
    (
        "That is the old password",
        "Le nouveau mot de passe est l'ancien. Choisissez-en un autre.",
    ),
)
_NUMBER = re.compile(r"AADSTS(\d+): ")


def refusal(text: str, language: str) -> str:
    """A refusal in the language of the page, where there are words for it."""
    if language != "fr":
        return text
    for known, said in _OTHERS:
        if known in text:
            return said
    found = _NUMBER.match(text)
    if found and int(found[1]) in _REFUSALS:
        return f"AADSTS{found[1]} : {_REFUSALS[int(found[1])]}"
    return text


def translate(text: str, language: str) -> str:
    return _FRENCH.get(text, text) if language == "fr" else text


def language_of(accepted: str) -> str:
    """The first of our languages in an Accept-Language header."""
    for item in accepted.split(",")[:20]:
        found = re.match(r"\s*([a-zA-Z]{2})\b", item)
        if found and found[1].lower() in LANGUAGES and "q=0;" not in item + ";":
            return found[1].lower()
    return "en"
