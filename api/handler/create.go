package handler

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"tailbox/api/store"
	"tailbox/schema"
)

func (a *api) create(c *gin.Context) error {
	key, err := idempotencyKey(c.Request.Header)
	if err != nil {
		return err
	}
	given, err := readFields(c, fieldEmail, fieldName)
	if err != nil {
		return err
	}
	change, wrong := given.change()
	if wrong = append(wrong, given.missing(fieldEmail, fieldName)...); len(wrong) > 0 {
		return invalid(wrong)
	}

	customer := newCustomer(change)
	answer, err := createdAnswer(customer)
	if err != nil {
		return err
	}
	ctx, headers := c.Request.Context(), eventHeaders(c.Request.Header)
	if key == "" {
		err = a.customers.Create(ctx, customer, headers)
	} else {
		hash, hashErr := requestHash(change)
		if hashErr != nil {
			return hashErr
		}
		answer, err = a.customers.CreateOnce(ctx, customer, headers, store.Once{Key: key, RequestHash: hash, Answer: answer})
	}
	if err != nil {
		return err
	}
	c.Header("Location", answer.Location)
	c.Header("ETag", etag(1))
	c.Data(answer.Status, contentTypeJSON, answer.Body)
	return nil
}

func newCustomer(values store.Change) store.Customer {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return store.Customer{
		ID: schema.NewID(), Email: *values.Email, Name: *values.Name,
		Version: 1, CreatedAt: now, UpdatedAt: now,
	}
}

// createdAnswer is made before the customer is, so that it can be remembered in the same transaction.
func createdAnswer(customer store.Customer) (store.Answer, error) {
	body, err := json.Marshal(bodyOf(customer))
	if err != nil {
		return store.Answer{}, err
	}
	return store.Answer{Status: http.StatusCreated, Location: "/customers/" + customer.ID, Body: body}, nil
}

// requestHash is the same for requests that mean the same, whatever the order of their fields and the blanks in between.
func requestHash(values store.Change) ([sha256.Size]byte, error) {
	canonical, err := json.Marshal([]string{"POST /customers", *values.Email, *values.Name})
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(canonical), nil
}
