"""Where every page lives."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path
from django.views.generic import RedirectView

from everest import views

urlpatterns = [
    path("", views.home, name="home"),
    path("sign-in/", auth.LoginView.as_view(redirect_authenticated_user=True), name="sign-in"),
    path("sign-out/", auth.LogoutView.as_view(), name="sign-out"),
    path("password/", views.PasswordView.as_view(), name="password"),
    path("preferences/", views.preferences, name="preferences"),
    path("events/", views.events, name="events"),
    path("favicon.ico", RedirectView.as_view(url="/static/favicon.svg"), name="favicon"),
    path("health", views.health, name="health"),
    path("settings/storages/", include("storages.urls")),
    path("", include("backups.urls")),
    path("admin/", admin.site.urls),
]
handler403 = "everest.views.forbidden"
