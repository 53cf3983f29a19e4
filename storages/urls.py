from django.urls import path

from storages import views

urlpatterns = [
    path("", views.storages, name="storages"),
    path("add/", views.add, name="storage-add"),
    path("<int:pk>/", views.edit, name="storage-edit"),
    path("<int:pk>/test/", views.test, name="storage-test"),
    path("<int:pk>/delete/", views.delete, name="storage-delete"),
]
