package handler

import (
	"encoding/json"
	"net/http"

	"github.com/gin-gonic/gin"

	"tailbox/api/store"
	"tailbox/schema"
)

const contentTypeJSON = "application/json; charset=utf-8"

type customerBody struct {
	ID        string `json:"id"`
	Email     string `json:"email"`
	Name      string `json:"name"`
	Version   uint64 `json:"version"`
	CreatedAt string `json:"created_at"`
	UpdatedAt string `json:"updated_at"`
}

type listBody struct {
	Customers []customerBody `json:"customers"`
	Next      *string        `json:"next"`
}

func bodyOf(c store.Customer) customerBody {
	return customerBody{
		ID: c.ID, Email: c.Email, Name: c.Name, Version: c.Version,
		CreatedAt: c.CreatedAt.UTC().Format(schema.TimeFormat),
		UpdatedAt: c.UpdatedAt.UTC().Format(schema.TimeFormat),
	}
}

func writeCustomer(c *gin.Context, customer store.Customer) error {
	c.Header("ETag", etag(customer.Version))
	return writeJSON(c, http.StatusOK, bodyOf(customer))
}

func writeJSON(c *gin.Context, status int, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	c.Data(status, contentTypeJSON, body)
	return nil
}
